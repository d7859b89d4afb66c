//! x
#![forbid(unsafe_code)]
pub mod admission;
pub mod descriptors;
pub mod dispatcher;
pub mod launcher;
pub mod paths;
pub mod words;
