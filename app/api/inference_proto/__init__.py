"""The messages of the Open Inference Protocol's gRPC.

`open_inference_grpc.proto` is specification/protocol/open_inference_grpc.proto of
https://github.com/kserve/open-inference-protocol as of commit d49cc23, unchanged. Its licence is Apache 2.0, as this
repository's LICENSE has it. `make proto` writes the two files beside it.
"""
