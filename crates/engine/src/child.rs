//! The process that *is* the ClickHouse server: it loads the library and calls its `main`.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{EngineError, file_error};

/// How the child runs.
#[derive(Clone, Debug)]
pub struct ChildOptions {
    /// `libchdb.so`.
    pub library: PathBuf,
    /// Server configuration.
    pub config: PathBuf,
    /// Where ClickHouse keeps its data.
    pub data: PathBuf,
    /// Port of the HTTP listener on 127.0.0.1.
    pub http_port: u16,
}

/// How long the engine may take to leave its prompt when its terminal is gone.
const HANG_UP_DEADLINE: Duration = Duration::from_secs(10);

/// File in the data directory's parent that a running engine holds locked, with its process id in it.
pub(crate) fn lock_path(data: &Path) -> PathBuf {
    data.with_extension("lock")
}

fn lock(data: &Path) -> Result<Flock<File>, EngineError> {
    let path = lock_path(data);
    let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
    let file = file.map_err(file_error(&path))?;
    let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    let mut locked = locked.map_err(|(_, _)| EngineError::InUse { directory: data.into() })?;
    locked.set_len(0).map_err(file_error(&path))?;
    write!(locked, "{}", std::process::id()).map_err(file_error(&path))?;
    Ok(locked)
}

/// The terminal hangs up when the parent ends, however it ends. (`PR_SET_PDEATHSIG` would follow the parent's
/// *thread*, which a pool may retire at any time.) The engine then leaves its prompt; this sees to it that it does.
fn end_with_parent() {
    let terminal = std::io::stdin();
    loop {
        // Hang-up is reported without being asked for.
        let mut descriptors = [PollFd::new(terminal.as_fd(), PollFlags::empty())];
        match poll(&mut descriptors, PollTimeout::NONE) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(_) => return,
        }
    }
    std::thread::sleep(HANG_UP_DEADLINE);
    // Data is written so that it survives this at any moment.
    let _ = kill(Pid::this(), Signal::SIGKILL);
}

/// Loads the library and serves until it is told to exit or its parent ends. Standard input must be a terminal:
/// run without one, the engine aborts when a client resets its connection (ClickHouse issue 115666).
pub fn run_child(options: &ChildOptions) -> Result<(), EngineError> {
    type QueryCommandLine = unsafe extern "C" fn(c_int, *const *const c_char) -> *mut c_void;

    let _lock = lock(&options.data)?;
    std::thread::spawn(end_with_parent);
    let arguments = [
        "clickhouse".to_owned(),
        format!("--path={}", options.data.display()),
        format!("--config-file={}", options.config.display()),
        format!("--http_port={}", options.http_port),
        "--listen_host=127.0.0.1".to_owned(),
        "--interactive".to_owned(),
        "--disable_suggestion".to_owned(),
        // A file of its own, which it makes its owner's alone: given /dev/null, it would make that root's alone.
        format!("--history_file={}", options.data.with_extension("history").display()),
        "--progress=off".to_owned(),
        "--highlight=0".to_owned(),
        "--query=SYSTEM START LISTEN HTTP".to_owned(),
    ];
    let arguments = arguments.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
    let arguments = arguments.map_err(|error| file_error(&options.data)(error.into()))?;
    let pointers: Vec<*const c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    let count = c_int::try_from(pointers.len()).unwrap_or(c_int::MAX);
    let load_error = |source| EngineError::Load { path: options.library.clone(), source };
    // SAFETY: the library's integrity was checked when it was unpacked; its initialisers ask nothing of us.
    let library = unsafe { libloading::Library::new(&options.library) }.map_err(load_error)?;
    // SAFETY: the symbol has this type (chdb.h: `chdb_query_cmdline(int argc, char ** argv)`).
    let serve = unsafe { library.get::<QueryCommandLine>(b"chdb_query_cmdline\0") }.map_err(load_error)?;
    // SAFETY: `pointers` holds `count` NUL-terminated strings that live until the call returns.
    unsafe { serve(count, pointers.as_ptr()) };
    Ok(())
}
