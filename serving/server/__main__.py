"""`python -m serving.server`: the embedded model server."""

import sys

from serving.server.process import main

sys.exit(main())
