//! An export with its manifest: what is written with the rows, and how both are verified later without ClickHouse.

mod archive;
mod digest;
mod file;
mod manifest;
mod records;

pub use archive::Archive;
pub use digest::{Digest, Facts};
pub use file::{FileError, FileFinding, FileReport, verify};
pub use manifest::{ChainHead, Content, ExportManifest, Gap, MANIFEST_SUFFIX, Unwatched};
