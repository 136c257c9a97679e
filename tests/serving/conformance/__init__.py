"""What any server of TensorFlow Serving's protocol must do, in our own words.

By default the embedded server is asked. `MEDSYNTH_SERVER=host:port` (gRPC, and `MEDSYNTH_SERVER_REST=host:port`) asks one that
already serves what `python -m tests.serving.conformance.models FOLDER` writes: start it with
`--model_config_file=FOLDER/models.config --monitoring_config_file=FOLDER/monitoring.config`.
`MEDSYNTH_SERVER_COMMAND=tensorflow_model_server` starts that command instead, also for the tests that need flags of their own.
"""
