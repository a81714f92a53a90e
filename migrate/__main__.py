"""`python -m migrate` is `migrate`."""

from migrate.cli.main import main

if __name__ == "__main__":
    main(prog_name="migrate")
