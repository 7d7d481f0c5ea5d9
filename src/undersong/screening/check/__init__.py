"""`undersong check`: how many samples of a training file lie nearer to harm than ordinary data do."""
