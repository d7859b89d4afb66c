//! The record: what was asked, by whom, what was decided and what came of it, in segments that are only ever added to.
#![forbid(unsafe_code)]
