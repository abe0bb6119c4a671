//! Images from Dockerfiles.

pub mod ignore;
pub mod lines;
pub mod parse;
pub mod plan;
pub mod words;

use thiserror::Error;

/// What is wrong with a Dockerfile.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {why}")]
pub struct ParseError {
    /// The line, from one on.
    pub line: usize,
    /// What is wrong, and what to do.
    pub why: String,
}

impl ParseError {
    fn new(line: usize, why: impl Into<String>) -> Self {
        Self { line, why: why.into() }
    }
}
