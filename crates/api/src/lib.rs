//! The HTTP edges: they convert and call the server.
