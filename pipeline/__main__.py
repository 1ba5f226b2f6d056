"""`python -m emopipe.pipeline` is the command line."""

from emopipe.pipeline.cli.app import main

if __name__ == "__main__":
    main()
