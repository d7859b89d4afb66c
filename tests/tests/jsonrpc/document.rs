//! docs/jsonrpc.md and `examples/`.
