"""`make bench`: every ratio, each inside one run."""

from benchmarks import demo, encoders, features, generation, judging, nearest, overhead, probing, scale, screening

if __name__ == "__main__":
    for benchmark in (nearest, generation, probing, judging, features, encoders, screening, scale, overhead, demo):
        benchmark.main()
