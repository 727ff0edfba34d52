"""Starts the installed sglang_router with the settings of a JSON object (argument 1: RouterArgs' fields).

Its own command line knows fewer policies than its engine does (no consistent_hashing, no prefix_hash), and imports web frameworks,
and SGLang where that is installed, for a debugging mode that nobody asks for: seconds of start-up.
"""

import json
import sys

from sglang_router.router import Router
from sglang_router.router_args import RouterArgs

Router.from_args(RouterArgs(**json.loads(sys.argv[1]))).start()
