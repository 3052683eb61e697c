//! A ZIP archive that is written as a stream: bytes of files go in, bytes of the archive come out.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{Datelike, Timelike};
use whence_model::Timestamp;
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Fast: an export waits for ClickHouse, not for this.
const LEVEL: i64 = 1;

/// An archive under way.
pub struct Archive {
    zip: ZipWriter<StreamWriter<Output>>,
    output: Output,
    options: SimpleFileOptions,
}

impl Archive {
    /// An empty archive, whose files are said to be of the time `at`.
    pub fn new(at: Timestamp) -> Self {
        let output = Output::default();
        let at = at.to_utc();
        let number = |value: u32| u8::try_from(value).unwrap_or_default();
        let date = DateTime::from_date_and_time(
            u16::try_from(at.year()).unwrap_or_default(),
            number(at.month()),
            number(at.day()),
            number(at.hour()),
            number(at.minute()),
            number(at.second()),
        );
        // Its size is not known when it begins: it may be 4 GiB or more.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(LEVEL))
            .last_modified_time(date.unwrap_or_default())
            .large_file(true);
        Self { zip: ZipWriter::new_stream(output.clone()), output, options }
    }

    /// Begins the next file.
    pub fn start(&mut self, name: &str) -> io::Result<()> {
        self.zip.start_file(name, self.options).map_err(io::Error::from)
    }

    /// Goes on with the file.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.zip.write_all(bytes)
    }

    /// What has become of it since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        self.output.take()
    }

    /// The rest of the archive.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        self.zip.finish()?;
        Ok(self.output.take())
    }
}

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
