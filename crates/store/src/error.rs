//! What can go wrong, by what the caller does about it.

/// The store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// ClickHouse cannot do it now: try again later.
    #[error("ClickHouse cannot be used now: {source}")]
    Retryable { source: clickhouse::error::Error },
    /// Settings, grants or the schema are not as they must be: a person has to mend it.
    #[error("ClickHouse is not set up as it must be: {reason}")]
    Misconfigured { reason: String },
    /// The data contradicts what is stored: trying again does not help.
    #[error("refused: {reason}")]
    Rejected { reason: String },
    /// Somebody closed the session that this was to be written in, or it lay idle: nothing was written.
    #[error("this ingest may not write for this collector any more; try again")]
    SessionEnded,
    /// A query of this session is running.
    #[error("a query of this session has not ended; try again later")]
    SessionBusy,
    /// The question needs more time or memory than one may use.
    #[error("this would read too much; choose a shorter time window or narrower filters")]
    TooBig,
    /// A stored row is not what it should be.
    #[error("a stored row cannot be understood: {what}: {value:?}")]
    Corrupt { what: &'static str, value: String },
}

/// ClickHouse's error codes (`src/Common/ErrorCodes.cpp`) for a question that is too big.
const TOO_BIG: &[u32] = &[
    158, // TOO_MANY_ROWS
    159, // TIMEOUT_EXCEEDED
    160, // TOO_SLOW
    241, // MEMORY_LIMIT_EXCEEDED
    307, // TOO_MANY_BYTES
    396, // TOO_MANY_ROWS_OR_BYTES
];
/// … and for a server that was not set up for Whence.
const MISCONFIGURED: &[u32] = &[
    16,  // NO_SUCH_COLUMN_IN_TABLE
    36,  // BAD_ARGUMENTS
    47,  // UNKNOWN_IDENTIFIER
    60,  // UNKNOWN_TABLE
    62,  // SYNTAX_ERROR
    81,  // UNKNOWN_DATABASE
    115, // UNKNOWN_SETTING
    164, // READONLY
    192, // UNKNOWN_USER
    193, // WRONG_PASSWORD
    194, // REQUIRED_PASSWORD
    497, // ACCESS_DENIED
    516, // AUTHENTICATION_FAILED
];

impl StoreError {
    /// ClickHouse did not answer in time.
    pub fn timed_out() -> Self {
        Self::Retryable { source: clickhouse::error::Error::TimedOut }
    }

    /// The same for one more of those whom it concerns.
    #[must_use]
    pub fn copy(&self) -> Self {
        match self {
            Self::Retryable { source } => {
                Self::Retryable { source: clickhouse::error::Error::Custom(source.to_string()) }
            }
            Self::Misconfigured { reason } => Self::Misconfigured { reason: reason.clone() },
            Self::Rejected { reason } => Self::Rejected { reason: reason.clone() },
            Self::SessionEnded => Self::SessionEnded,
            Self::SessionBusy => Self::SessionBusy,
            Self::TooBig => Self::TooBig,
            Self::Corrupt { what, value } => Self::Corrupt { what, value: value.clone() },
        }
    }

    /// Sorts an error of the client by its code. The only place that looks into its text.
    pub(crate) fn from_clickhouse(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;

        let code = match &error {
            Error::BadResponse(text) => code(text),
            _ => None,
        };
        match (code, &error) {
            (Some(code), _) if TOO_BIG.contains(&code) => Self::TooBig,
            (Some(372), _) => Self::SessionEnded,
            (Some(373), _) => Self::SessionBusy,
            (Some(code), _) if MISCONFIGURED.contains(&code) => {
                Self::Misconfigured { reason: first_line(&error) }
            }
            (None, Error::SchemaMismatch(_) | Error::InvalidParams(_) | Error::Unsupported(_)) => {
                Self::Misconfigured { reason: first_line(&error) }
            }
            _ => Self::Retryable { source: error },
        }
    }
}

impl From<clickhouse::error::Error> for StoreError {
    fn from(error: clickhouse::error::Error) -> Self {
        Self::from_clickhouse(error)
    }
}

/// `Code: 60. DB::Exception: …` begins every error of ClickHouse.
fn code(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("Code: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn first_line(error: &clickhouse::error::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_by_code() {
        let error =
            |text: &str| StoreError::from_clickhouse(clickhouse::error::Error::BadResponse(text.into()));
        assert!(matches!(error("Code: 241. DB::Exception: x"), StoreError::TooBig));
        assert!(matches!(error("Code: 60. DB::Exception: x"), StoreError::Misconfigured { .. }));
        assert!(matches!(error("Code: 252. DB::Exception: x"), StoreError::Retryable { .. }));
        assert!(matches!(error("gateway"), StoreError::Retryable { .. }));
    }
}
