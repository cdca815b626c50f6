"""`python -m audiolm …`"""

import sys

from audiolm.cli import main

if __name__ == "__main__":
    sys.exit(main())
