"""TFX pipelines around the methods: ingest, validate, train, judge, push."""

import warnings

# The Google clients that TFX imports each say that Python 3.10 is old; TFX has no release for a newer one.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.")
