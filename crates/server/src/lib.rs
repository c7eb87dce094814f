//! The service every edge calls; knows no HTTP.
