//! Whether an exported file is what its manifest says, and the manifest what was signed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use whence_chain::PublicKey;
use zip::ZipArchive;

use super::{Content, Digest, ExportManifest, MANIFEST_SUFFIX, records};
use crate::signed::{SignedError, read_signed};

const MAX_MANIFEST_BYTES: u64 = 64 << 20;
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";

/// It could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "{path} has no manifest: it was looked for in {manifest}. Give it with --manifest, or the .zip that was exported"
    )]
    NoManifest { path: PathBuf, manifest: PathBuf },
}

/// How a file is not what was exported.
#[derive(Debug, thiserror::Error)]
pub enum FileFinding {
    #[error("archive damaged: {0}")]
    Archive(String),
    #[error("manifest changed: {0}")]
    Manifest(#[from] SignedError),
    #[error("manifest changed: {0}")]
    Nonsense(&'static str),
    #[error("unknown key: the manifest was signed by {found}, not by {expected}")]
    WrongKey { found: String, expected: String },
    #[error("header changed: the first line does not name the columns that were exported")]
    Header,
    #[error(
        "rows changed: the first difference is in {place}; {expected} rows were exported, the file has {found}"
    )]
    Rows { place: String, expected: u64, found: u64 },
    #[error("file changed: expected {expected}, found {found}")]
    File { expected: String, found: String },
}

/// What was found out.
#[derive(Debug)]
pub struct FileReport {
    /// None when it is not what was signed.
    pub manifest: Option<ExportManifest>,
    /// Whose signature it bears.
    pub key: Option<PublicKey>,
    /// Rows in the file.
    pub rows: u64,
    pub findings: Vec<FileFinding>,
}

impl FileReport {
    fn broken(finding: FileFinding) -> Self {
        Self { manifest: None, key: None, rows: 0, findings: vec![finding] }
    }
}

/// Verifies the file at `path`: an archive, or a file of rows with its manifest at `manifest` (or beside it). `keys` are
/// those that may have signed; with none, every key may. `progress` is told of bytes that were read.
pub fn verify(
    path: &Path,
    manifest: Option<&Path>,
    keys: &[PublicKey],
    progress: impl FnMut(u64),
) -> Result<FileReport, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.into(), source };
    let mut file = BufReader::new(File::open(path).map_err(unreadable)?);
    let is_named_zip = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
    if is_named_zip || file.fill_buf().map_err(unreadable)?.starts_with(ZIP_MAGIC) {
        return Ok(archive(file, keys, progress)
            .unwrap_or_else(|error| FileReport::broken(FileFinding::Archive(error.to_string()))));
    }
    let beside = manifest.map_or_else(|| with_suffix(path), Path::to_owned);
    let text = match std::fs::read(&beside) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(FileError::NoManifest { path: path.into(), manifest: beside });
        }
        Err(source) => return Err(FileError::Unreadable { path: beside, source }),
    };
    against(&text, file, keys, progress).map_err(unreadable)
}

fn with_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(MANIFEST_SUFFIX);
    name.into()
}

fn archive(
    file: impl Read + Seek,
    keys: &[PublicKey],
    progress: impl FnMut(u64),
) -> Result<FileReport, zip::result::ZipError> {
    let mut archive = ZipArchive::new(file)?;
    let names = archive.file_names().map(|name| name.map(std::borrow::Cow::into_owned));
    let names = names.collect::<Result<Vec<String>, _>>()?;
    let (manifests, rows): (Vec<&String>, Vec<&String>) =
        names.iter().partition(|name| name.ends_with(MANIFEST_SUFFIX));
    let ([manifest], [rows]) = (&manifests[..], &rows[..]) else {
        let found = format!("it holds {} files, and not one with its manifest", names.len());
        return Ok(FileReport::broken(FileFinding::Archive(found)));
    };
    if **manifest != format!("{rows}{MANIFEST_SUFFIX}") {
        let found = format!("{manifest} is not the name of the manifest of {rows}");
        return Ok(FileReport::broken(FileFinding::Archive(found)));
    }
    let mut text = Vec::new();
    archive.by_name(manifest)?.take(MAX_MANIFEST_BYTES).read_to_end(&mut text)?;
    let file = BufReader::new(archive.by_name(rows)?);
    let mut report = against(&text, file, keys, progress)?;
    if let Some(known) = report.manifest.as_ref().filter(|known| known.file != **rows) {
        let (expected, found) = (format!("the name {}", known.file), (*rows).clone());
        report.findings.push(FileFinding::File { expected, found });
    }
    Ok(report)
}

/// Reads the rows and compares them with the manifest in `text`.
fn against(
    text: &[u8],
    file: impl BufRead,
    keys: &[PublicKey],
    progress: impl FnMut(u64),
) -> io::Result<FileReport> {
    let read = std::str::from_utf8(text)
        .map_err(|_| FileFinding::Nonsense("it is no UTF-8"))
        .and_then(|text| read_signed::<ExportManifest>(text).map_err(FileFinding::Manifest));
    let (manifest, key) = match read {
        Ok(read) => read,
        Err(finding) => return Ok(FileReport::broken(finding)),
    };
    let mut report = FileReport { key: Some(key), rows: 0, findings: Vec::new(), manifest: None };
    if !keys.is_empty() && !keys.contains(&key) {
        let expected = keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        report.findings.push(FileFinding::WrongKey { found: key.to_string(), expected });
    }
    let Some(digest) = Digest::with_rows_per_hash(manifest.rows_per_hash) else {
        report.findings.push(FileFinding::Nonsense("rows_per_hash is no power of two"));
        return Ok(report);
    };
    report.rows = compare(&manifest, digest, file, progress, &mut report.findings)?;
    report.manifest = Some(manifest);
    Ok(report)
}

fn compare(
    manifest: &ExportManifest,
    mut digest: Digest,
    mut file: impl BufRead,
    mut progress: impl FnMut(u64),
    findings: &mut Vec<FileFinding>,
) -> io::Result<u64> {
    let mut row = Vec::new();
    if manifest.content == Content::Csv {
        records::next(manifest.content, &mut file, &mut row)?;
        if row != format!("{}\r\n", manifest.columns.join(",")).as_bytes() {
            findings.push(FileFinding::Header);
        }
        digest.header(&row);
    }
    while records::next(manifest.content, &mut file, &mut row)? {
        digest.row(&row);
        progress(row.len() as u64);
    }
    let found = digest.finish();
    let known = &manifest.row_hashes;
    let first = known.iter().zip(&found.row_hashes).position(|(known, found)| known != found);
    let differs = first
        .or_else(|| (known.len() != found.row_hashes.len()).then(|| known.len().min(found.row_hashes.len())));
    if let Some(run) = differs {
        let start = (run as u64).saturating_mul(manifest.rows_per_hash);
        let end = start.saturating_add(manifest.rows_per_hash).min(manifest.rows.max(found.rows));
        let place = match start + 1 {
            first if first >= end => format!("row {first}"),
            first => format!("rows {first} to {end}"),
        };
        findings.push(FileFinding::Rows { place, expected: manifest.rows, found: found.rows });
    }
    if findings.is_empty()
        && (found.bytes, found.rows, &found.sha256) != (manifest.bytes, manifest.rows, &manifest.sha256)
    {
        let text =
            |rows: u64, bytes: u64, sha256: &str| format!("{rows} rows, {bytes} bytes, SHA-256 {sha256}");
        findings.push(FileFinding::File {
            expected: text(manifest.rows, manifest.bytes, &manifest.sha256),
            found: text(found.rows, found.bytes, &found.sha256),
        });
    }
    Ok(found.rows)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use whence_chain::SigningKey;
    use whence_model::Timestamp;

    use super::*;
    use crate::sign;

    /// A file of these rows, and its signed manifest.
    fn export(content: Content, rows: &[&str], key: &SigningKey) -> (Vec<u8>, String) {
        let (mut digest, mut file) = (Digest::default(), Vec::new());
        if content == Content::Csv {
            file.extend(b"a,b\r\n");
            digest.header(&file);
        }
        for row in rows {
            digest.row(row.as_bytes());
            file.extend(row.as_bytes());
        }
        let facts = digest.finish();
        let manifest = ExportManifest {
            version: "0".into(),
            export_id: uuid::Uuid::nil(),
            exported_by: "ada".into(),
            exported_at: Timestamp(0),
            finished_at: Timestamp(1),
            file: "rows.csv".into(),
            content,
            columns: vec!["a".into(), "b".into()],
            filter: "user=a".into(),
            from: Timestamp(0),
            to: Timestamp(1),
            rows: facts.rows,
            bytes: facts.bytes,
            sha256: facts.sha256,
            gaps: vec![],
            unwatched: vec![],
            chains: vec![],
            rows_per_hash: facts.rows_per_hash,
            row_hashes: facts.row_hashes,
        };
        (file, sign(&manifest, key).unwrap())
    }

    fn zipped(rows: &[u8], manifest: &str) -> Vec<u8> {
        let mut archive = super::super::Archive::new(Timestamp(1_795_435_200_000_000_000));
        let mut bytes = Vec::new();
        for (name, content) in [("rows.csv", rows), ("rows.csv.manifest.json", manifest.as_bytes())] {
            archive.start(name).unwrap();
            archive.write(content).unwrap();
            bytes.extend(archive.take());
        }
        bytes.extend(archive.finish().unwrap());
        bytes
    }

    const ROWS: &[&str] = &["1,\"x\ny\"\r\n", "2,z\r\n", "3,\"\"\"q\"\r\n"];

    #[test]
    fn every_changed_byte_is_found() {
        let key = SigningKey::generate();
        let lines = &["{\"a\":1}\n", "{\"a\":\"\\n\"}\n"];
        for (content, rows) in [(Content::Csv, ROWS), (Content::Ndjson, lines)] {
            let (file, manifest) = export(content, rows, &key);
            let clean = against(manifest.as_bytes(), &file[..], &[key.public()], drop).unwrap();
            assert!(clean.findings.is_empty(), "{:?}", clean.findings);
            for place in 0..file.len() {
                for change in [1_u8, 0x20, 0x80, 0xff] {
                    let mut changed = file.clone();
                    changed[place] ^= change;
                    let report = against(manifest.as_bytes(), &changed[..], &[], drop).unwrap();
                    assert!(!report.findings.is_empty(), "{content:?} {place}");
                }
                let mut shorter = file.clone();
                shorter.remove(place);
                assert!(!against(manifest.as_bytes(), &shorter[..], &[], drop).unwrap().findings.is_empty());
            }
            for place in 0..manifest.len() {
                let mut changed = manifest.clone().into_bytes();
                changed[place] ^= 1;
                assert!(!against(&changed, &file[..], &[], drop).unwrap().findings.is_empty(), "{place}");
            }
        }
    }

    #[test]
    fn the_row_that_differs_is_named() {
        let key = SigningKey::generate();
        let (file, manifest) = export(Content::Csv, ROWS, &key);
        let text = String::from_utf8(file).unwrap();
        let finding = |text: String| {
            let report = against(manifest.as_bytes(), text.as_bytes(), &[], drop).unwrap();
            report.findings.iter().map(ToString::to_string).collect::<String>()
        };
        let changed = finding(text.replace("2,z", "2,y"));
        assert!(changed.contains("in row 2; 3 rows were exported, the file has 3"), "{changed}");
        assert!(
            finding(text.replace("2,z\r\n", "")).contains("in row 2; 3 rows were exported, the file has 2")
        );
        assert!(finding(format!("{text}4,5\r\n")).contains("in row 4; 3 rows were exported, the file has 4"));
        assert!(finding(text.replace("a,b", "a,c")).contains("header changed"));
    }

    #[test]
    fn another_key_is_not_the_one_that_was_given() {
        let key = SigningKey::generate();
        let (file, manifest) = export(Content::Csv, ROWS, &key);
        let other = SigningKey::generate().public();
        let report = against(manifest.as_bytes(), &file[..], &[other], drop).unwrap();
        assert!(matches!(report.findings[..], [FileFinding::WrongKey { .. }]), "{:?}", report.findings);
    }

    #[test]
    fn a_changed_archive_is_found_or_holds_the_same() {
        let key = SigningKey::generate();
        let (file, manifest) = export(Content::Csv, ROWS, &key);
        let whole = zipped(&file, &manifest);
        let check = |bytes: &[u8]| archive(Cursor::new(bytes.to_vec()), &[], drop);
        assert!(check(&whole).unwrap().findings.is_empty());
        for place in 0..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 0x55;
            if check(&changed).is_ok_and(|report| report.findings.is_empty()) {
                // What says how the archive is packed is not what it holds.
                let mut opened = ZipArchive::new(Cursor::new(changed)).unwrap();
                let mut rows = Vec::new();
                opened.by_name("rows.csv").unwrap().read_to_end(&mut rows).unwrap();
                assert_eq!(rows, file, "{place}");
            }
        }
    }
}
