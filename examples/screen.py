"""Screen a pool of benign speech: which items lie close to harmful ones, by words and by sound."""

import undersong

screened = undersong.screen(
    "organism:pool", "organism:reference", axes={"semantic": "tfidf", "acoustic": "logmel"}, keep="distant:0.25"
)
rows = screened.to_pandas()  # id, axis, harm_set, distance, rank, …, kept
print(rows[rows["axis"] == "semantic"].nsmallest(5, "rank")[["id", "distance", "nearest_id"]])
print(len(screened.selection.ids), "kept;", len(screened.quarantined), "unusable")
