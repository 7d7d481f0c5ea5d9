"""`make bench`: every ratio, each inside one run."""

from benchmarks import demo, generation, nearest

if __name__ == "__main__":
    for benchmark in (nearest, generation, demo):
        benchmark.main()
