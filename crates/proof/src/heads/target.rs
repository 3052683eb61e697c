//! Where heads are kept: a file that only grows, or a bucket in which no object is ever replaced.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::NaiveDate;
use nix::fcntl::{Flock, FlockArg};
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, PutMode, PutOptions};

use super::DayHeads;

/// Heads cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{place} holds no heads that can be read: {source}")]
    Unreadable { place: String, source: serde_json::Error },
    #[error("{0:?} is no bucket; give s3://BUCKET or s3://BUCKET/PREFIX")]
    NoBucket(String),
    #[error("the bucket cannot be used: {0}")]
    Bucket(#[from] object_store::Error),
}

/// What became of the heads of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    New,
    /// They had been written before, and stay as they are.
    Before,
}

/// How an S3-compatible service is reached. What is not set comes from the usual variables (`AWS_ENDPOINT_URL`,
/// `AWS_REGION`, `AWS_ACCESS_KEY_ID` …), or from the machine that this runs on.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
}

/// A place for heads.
pub enum Target {
    File(PathBuf),
    Bucket { store: Arc<dyn ObjectStore>, prefix: ObjectPath, name: String },
}

impl Target {
    /// The bucket that `s3://BUCKET/PREFIX` names, or the file.
    pub fn open(text: &str, options: &S3Options) -> Result<Self, TargetError> {
        let Some(address) = text.strip_prefix("s3://") else {
            return Ok(Self::File(text.into()));
        };
        let (bucket, prefix) = address.split_once('/').unwrap_or((address, ""));
        if bucket.is_empty() {
            return Err(TargetError::NoBucket(text.into()));
        }
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_conditional_put(S3ConditionalPut::ETagMatch);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some(region) = &options.region {
            builder = builder.with_region(region);
        }
        if let Some(key) = &options.access_key {
            builder = builder.with_access_key_id(key);
        }
        if let Some(key) = &options.secret_key {
            builder = builder.with_secret_access_key(key);
        }
        let store = Arc::new(builder.build()?);
        Ok(Self::Bucket { store, prefix: ObjectPath::from(prefix), name: text.trim_end_matches('/').into() })
    }

    /// The newest day that is there.
    pub async fn last_day(&self) -> Result<Option<NaiveDate>, TargetError> {
        match self {
            Self::File(_) => Ok(self.read().await?.iter().map(|heads| heads.day).max()),
            Self::Bucket { .. } => Ok(self.objects().await?.into_iter().map(|(day, _)| day).max()),
        }
    }

    /// All that is there, by day.
    pub async fn read(&self) -> Result<Vec<DayHeads>, TargetError> {
        let mut all = match self {
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => lines(path, &text)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(source) => return Err(TargetError::File { path: path.clone(), source }),
            },
            Self::Bucket { store, .. } => {
                let mut all = Vec::new();
                for (_, path) in self.objects().await? {
                    let bytes = store.get(&path).await?.bytes().await?;
                    let unreadable = |source| TargetError::Unreadable { place: path.to_string(), source };
                    all.push(serde_json::from_slice(&bytes).map_err(unreadable)?);
                }
                all
            }
        };
        all.sort_by_key(|heads: &DayHeads| heads.day);
        Ok(all)
    }

    /// Adds the heads of a day, unless that day is there.
    pub async fn add(&self, heads: &DayHeads) -> Result<Added, TargetError> {
        let unwritable = |source| TargetError::Unreadable { place: heads.day.to_string(), source };
        let mut line = serde_json::to_string(heads).map_err(unwritable)?;
        line.push('\n');
        match self {
            Self::File(path) => {
                let added = append(path, heads, &line);
                added.map_err(|source| TargetError::File { path: path.clone(), source })
            }
            Self::Bucket { store, prefix, .. } => {
                let path = prefix.child(format!("{}.json", heads.day));
                // `If-None-Match: *`: whoever comes second changes nothing.
                let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
                match store.put_opts(&path, line.into(), options).await {
                    Ok(_) => Ok(Added::New),
                    Err(object_store::Error::AlreadyExists { .. }) => Ok(Added::Before),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    async fn objects(&self) -> Result<Vec<(NaiveDate, ObjectPath)>, TargetError> {
        let Self::Bucket { store, prefix, .. } = self else { return Ok(Vec::new()) };
        let listed = store.list_with_delimiter(Some(prefix)).await?;
        let paths = listed.objects.into_iter().map(|object| object.location);
        let day = |path: &ObjectPath| path.filename()?.strip_suffix(".json")?.parse().ok();
        Ok(paths.filter_map(|path| Some((day(&path)?, path))).collect())
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Bucket { name, .. } => f.write_str(name),
        }
    }
}

/// The heads in a file's text. A last line without an end was never confirmed: its writer lost power.
fn lines(path: &Path, text: &str) -> Result<Vec<DayHeads>, TargetError> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let read = lines.map(|(line, number)| {
        let place = || format!("{} line {number}", path.display());
        serde_json::from_str(line).map_err(|source| TargetError::Unreadable { place: place(), source })
    });
    read.collect()
}

fn append(path: &Path, heads: &DayHeads, line: &str) -> io::Result<Added> {
    let is_new = !path.exists();
    let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| io::Error::from(error))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    // Another writer may have been faster.
    if lines(path, &text).map_err(io::Error::other)?.iter().any(|known| known.day >= heads.day) {
        return Ok(Added::Before);
    }
    let whole = text.rfind('\n').map_or(0, |end| end + 1) as u64;
    if whole < text.len() as u64 {
        file.set_len(whole)?;
        file.seek(SeekFrom::End(0))?;
    }
    file.write_all(line.as_bytes())?;
    file.sync_all()?;
    if is_new {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(Added::New)
}

#[cfg(test)]
mod tests {
    use whence_model::Timestamp;

    use super::*;

    fn heads(day: &str) -> DayHeads {
        DayHeads {
            day: day.parse().unwrap(),
            written_at: Timestamp(0),
            version: "0".into(),
            service_key: None,
            collectors: vec![],
        }
    }

    #[tokio::test]
    async fn a_day_is_written_once_and_a_torn_line_is_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("heads.ndjson");
        let target = Target::open(path.to_str().unwrap(), &S3Options::default()).unwrap();
        assert_eq!(target.last_day().await.unwrap(), None);
        assert_eq!(target.add(&heads("2026-11-23")).await.unwrap(), Added::New);
        assert_eq!(target.add(&heads("2026-11-23")).await.unwrap(), Added::Before);
        let whole = std::fs::read_to_string(&path).unwrap();
        for cut in [1, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, format!("{whole}{}", &whole.replace("-23", "-24")[..cut])).unwrap();
            assert_eq!(target.read().await.unwrap(), [heads("2026-11-23")], "{cut}");
            assert_eq!(target.add(&heads("2026-11-24")).await.unwrap(), Added::New);
            assert_eq!(target.read().await.unwrap(), [heads("2026-11-23"), heads("2026-11-24")], "{cut}");
        }
        std::fs::write(&path, whole.replace("day", "dog")).unwrap();
        assert!(target.read().await.unwrap_err().to_string().contains("heads.ndjson line 1 holds no heads"));
        assert!(Target::open("s3://", &S3Options::default()).is_err());
    }
}
