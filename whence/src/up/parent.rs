//! Parts end with their supervisor, however it ends: it holds the other end of their standard input.

use std::io::Read;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Tells a part that a supervisor started it.
pub const SUPERVISED: &str = "WHENCE_SUPERVISED";

/// Asks this process to end when its supervisor has ended. Does nothing without one.
pub fn follow() {
    if std::env::var_os(SUPERVISED).is_none() {
        return;
    }
    std::thread::spawn(|| {
        // Nothing is ever written to it: this returns when the supervisor is no more.
        let _ = std::io::stdin().read(&mut [0]);
        let _ = kill(Pid::this(), Signal::SIGTERM);
    });
}
