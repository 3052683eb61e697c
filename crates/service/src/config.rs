//! Configuration: defaults < TOML file < environment < flags, each setting defined once, as a clap argument.
//!
//! The file has one table per subcommand; its keys are the long flags with `_` for `-`:
//!
//! ```toml
//! [ingest]
//! listen = "127.0.0.1:8090"
//! ```
//!
//! A setting that may be given several times is a list there; where each is a table, `[[ingest.setting]]`, that table's text on
//! one line.
//!
//! A value of the file becomes the default of its argument, so that clap checks it like any other and the
//! environment and the flags win over it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ContextKind;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

/// Exit status for configuration that cannot be used (`EX_USAGE` of sysexits.h).
pub const EXIT_BAD_CONFIG: u8 = 64;

/// Environment variable that names the configuration file; `--config FILE` wins over it.
const CONFIG_VARIABLE: &str = "WHENCE_CONFIG";

/// Configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error(
        "{path} can be changed by every user of this host; take away the permission with: chmod o-w {path}"
    )]
    WorldWritable { path: PathBuf },
    #[error("{path} is not valid TOML: {source}")]
    NotToml { path: PathBuf, source: Box<toml::de::Error> },
    #[error("{path}: unknown key `{key}`; known here: {known}")]
    UnknownKey { path: PathBuf, key: String, known: String },
    #[error("{path}: `{key}` must be a string, a number, true or false, or a list of these")]
    WrongType { path: PathBuf, key: String },
    #[error("{path}: `{key}`: {problem}")]
    WrongValue { path: PathBuf, key: String, problem: String },
    /// A flag or a value that clap refused, or `--help`.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
}

/// Parses the arguments of this process over the environment and the configuration file.
pub fn parse<P: CommandFactory + FromArgMatches>() -> Result<P, ConfigError> {
    parse_from(std::env::args_os().collect(), std::env::var_os(CONFIG_VARIABLE))
}

fn parse_from<P: CommandFactory + FromArgMatches>(
    arguments: Vec<OsString>,
    config_variable: Option<OsString>,
) -> Result<P, ConfigError> {
    let mut command = P::command();
    if let Some(path) = config_path(&arguments).or(config_variable.map(PathBuf::from)) {
        command = with_file(command, &path)?;
    }
    let matches: ArgMatches = command.try_get_matches_from(arguments)?;
    Ok(P::from_arg_matches(&matches)?)
}

/// Finds `--config FILE` or `--config=FILE` before clap runs, since the file provides clap's defaults.
fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(PathBuf::from(path));
        }
    }
    None
}

fn with_file(mut command: Command, path: &Path) -> Result<Command, ConfigError> {
    use std::os::unix::fs::PermissionsExt;

    const WRITABLE_BY_OTHERS: u32 = 0o002;
    let unreadable = |source| ConfigError::Unreadable { path: path.into(), source };
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(ConfigError::WorldWritable { path: path.into() });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let tables: toml::Table = toml::from_str(&text)
        .map_err(|source| ConfigError::NotToml { path: path.into(), source: Box::new(source) })?;
    for (section, value) in tables {
        let known = || names(command.get_subcommands().map(|sub| sub.get_name().to_owned()));
        let (Some(subcommand), toml::Value::Table(settings)) = (command.find_subcommand(&section), value)
        else {
            return Err(ConfigError::UnknownKey { path: path.into(), key: section, known: known() });
        };
        let mut changed = subcommand.clone();
        for (key, value) in settings {
            changed = with_setting(changed, path, &section, &key, value)?;
        }
        command = command.mut_subcommand(section, |_| changed);
    }
    Ok(command)
}

fn with_setting(
    command: Command,
    path: &Path,
    section: &str,
    key: &str,
    value: toml::Value,
) -> Result<Command, ConfigError> {
    let full_key = format!("{section}.{key}");
    let is_known = command.get_arguments().any(|argument| argument.get_id() == key);
    if !is_known {
        let known = names(command.get_arguments().map(|argument| argument.get_id().to_string()));
        return Err(ConfigError::UnknownKey { path: path.into(), key: full_key, known });
    }
    let is_list = value.is_array();
    let values = match value {
        toml::Value::Array(items) => items.into_iter().map(item_text).collect::<Option<Vec<_>>>(),
        single => as_text(single).map(|text| vec![text]),
    };
    let values = values.ok_or_else(|| ConfigError::WrongType { path: path.into(), key: full_key.clone() })?;
    for (place, value) in values.iter().enumerate() {
        if let Some(problem) = problem(&command, key, value) {
            let key = if is_list { format!("{full_key}[{place}]") } else { full_key };
            return Err(ConfigError::WrongValue { path: path.into(), key, problem });
        }
    }
    Ok(command.mut_arg(key, |argument| argument.default_values(values).required(false)))
}

/// What the argument has against this value: in the end clap would say it too, but not that it is in the file.
fn problem(command: &Command, key: &str, value: &str) -> Option<String> {
    let argument = command.get_arguments().find(|argument| argument.get_id() == key)?;
    if !argument.get_action().takes_values() {
        return None;
    }
    let flag = format!("--{}", argument.get_long()?);
    let alone = command.clone().no_binary_name(true).try_get_matches_from([format!("{flag}={value}")]);
    let error = alone.err()?;
    let text = |kind| error.get(kind).map(ToString::to_string);
    // The other arguments are not given here, so what is wrong with them is no matter.
    if !text(ContextKind::InvalidArg).is_some_and(|argument| argument.starts_with(&flag)) {
        return None;
    }
    match (std::error::Error::source(&error), text(ContextKind::ValidValue)) {
        (Some(source), _) => Some(source.to_string()),
        (None, Some(valid)) => Some(format!("{value:?} is not one of {valid}")),
        (None, None) => None,
    }
}

/// Of a list; an item may be a table.
fn item_text(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::Table(_) => Some(value.to_string()),
        other => as_text(other),
    }
}

fn as_text(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

fn names(all: impl Iterator<Item = String>) -> String {
    all.filter(|name| name != "help" && name != "version").collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Cli {
        #[arg(long, global = true)]
        config: Option<PathBuf>,
        #[command(subcommand)]
        command: Sub,
    }

    #[derive(clap::Subcommand, Debug)]
    enum Sub {
        Ingest {
            #[arg(long, default_value_t = 1)]
            port: u16,
            #[arg(long)]
            url: Vec<String>,
            #[arg(long, requires = "port", env = "WHENCE_TEST_COLOUR")]
            colour: Option<Colour>,
        },
    }

    #[derive(Clone, Copy, Debug, clap::ValueEnum)]
    enum Colour {
        Red,
        Green,
    }

    fn parse_with(file: &str, arguments: &[&str]) -> Result<(u16, Vec<String>), ConfigError> {
        let directory =
            std::env::temp_dir().join(format!("whence-config-{}-{:p}", std::process::id(), &file));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("whence.toml");
        std::fs::write(&path, file).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut all: Vec<OsString> = vec!["whence".into(), "--config".into(), path.into()];
        all.extend(arguments.iter().map(Into::into));
        let parsed = parse_from::<Cli>(all, None);
        std::fs::remove_dir_all(&directory).unwrap();
        parsed.map(|cli| {
            let Sub::Ingest { port, url, .. } = cli.command;
            (port, url)
        })
    }

    #[test]
    fn the_file_wins_over_the_default_and_a_flag_over_the_file() {
        let file = "[ingest]\nport = 2\nurl = ['a', 'b']";
        let (port, url) = parse_with(file, &["ingest"]).unwrap();
        assert_eq!((port, url), (2, vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(parse_with(file, &["ingest", "--port", "3"]).unwrap().0, 3);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_path() {
        let error = parse_with("[ingest]\nprot = 2", &["ingest"]).unwrap_err().to_string();
        assert!(error.contains("unknown key `ingest.prot`; known here: port, url"), "{error}");
    }

    #[test]
    fn a_table_in_a_list_is_its_text() {
        let file = "[[ingest.url]]\na = 'x'\nb = [1, 2]\n[[ingest.url]]\na = \"it's\"";
        let (_, url) = parse_with(file, &["ingest"]).unwrap();
        assert_eq!(url, [r#"{ a = "x", b = [1, 2] }"#, r#"{ a = "it's" }"#]);
    }

    #[test]
    fn a_wrong_value_is_named_with_its_path_and_what_would_be_right() {
        let problem = |file: &str| parse_with(file, &["ingest"]).unwrap_err().to_string();
        let number = problem("[ingest]\nport = 'many'");
        assert!(number.ends_with(": `ingest.port`: invalid digit found in string"), "{number}");
        let named = problem("[ingest]\ncolour = 'blue'");
        assert!(named.ends_with(": `ingest.colour`: \"blue\" is not one of red, green"), "{named}");
        let listed = problem("[ingest]\nport = [1, 'x']");
        assert!(listed.contains("`ingest.port[1]`"), "{listed}");
        assert_eq!(parse_with("[ingest]\ncolour = 'red'", &["ingest"]).unwrap().0, 1);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused() {
        let error = parse_with("[ingest]\nport = {}", &["ingest"]).unwrap_err();
        assert!(matches!(error, ConfigError::WrongType { .. }), "{error}");
    }
}
