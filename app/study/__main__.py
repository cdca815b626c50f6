import sys

from app.study.commands import main

if __name__ == "__main__":
    sys.exit(main())
