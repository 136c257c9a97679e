"""TFX pipelines around the methods: ingest, validate, train, judge, push."""
