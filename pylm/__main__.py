"""`python -m pylm` is `pylm`."""

from pylm.cli.main import main

if __name__ == "__main__":
    main()
