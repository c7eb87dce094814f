//! Pre- and post-processing steps as plain functions.
