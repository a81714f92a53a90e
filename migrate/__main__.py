"""`python -m migrate` is `migrate`."""

from migrate.cli.start import main

if __name__ == "__main__":
    main()
