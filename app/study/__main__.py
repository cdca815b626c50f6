import sys

from app.study.commands import main

sys.exit(main())
