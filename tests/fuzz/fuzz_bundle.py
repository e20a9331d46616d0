"""Coverage-guided fuzzing of trust bundles: `python -m tests.fuzz.fuzz_bundle [libFuzzer options] [corpus]`."""

from tests.fuzz.run import run

if __name__ == "__main__":
    run("bundle")
