//! One server's file behind two mounts, as of two containers of one image: what is done is recorded once.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;
use whence_collector::offsets::{Table, derive};
use whence_model::{Command, Event, EventKind, Outcome};
use whence_testkit::{MariaDb, Via};

use crate::watched::Watched;

/// A container's file system over the directory of a program.
struct Container {
    directory: TempDir,
    program: PathBuf,
}

impl Container {
    fn of(program: &Path) -> Self {
        let directory = TempDir::new().unwrap();
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        });
        let lower = program.parent().unwrap().display();
        let options = format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .unwrap_or_else(|error| panic!("this test needs root and the overlay file system: {error}"));
        Self { program: merged.join(program.file_name().unwrap()), directory }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        umount2(&self.directory.path().join("merged"), MntFlags::MNT_DETACH).unwrap();
    }
}

fn session(watched: &mut Watched) -> Vec<Event> {
    let mut client = watched.open(Via::Tcp, "ana", "shop");
    let id = client.connection_id;
    client.query("SELECT * FROM goods").unwrap();
    let statement = client.prepare(b"SELECT name FROM goods WHERE id <= ?").unwrap();
    client.execute(statement, 2).unwrap();
    client.change_user("ben", &[], "shop").unwrap();
    assert!(client.query("DELETE FROM goods").is_err());
    client.quit().unwrap();
    // What would come twice has come by the end of the next connection.
    let next = watched.open(Via::Tcp, "ana", "");
    let next_id = next.connection_id;
    next.quit().unwrap();
    watched.connection(next_id);
    watched.connection(id)
}

fn assert_once(events: &[Event]) {
    let told: Vec<_> = events.iter().map(|event| (event.kind, event.command)).collect();
    let command = |number| (EventKind::Command, Some(number));
    let expected = [
        (EventKind::Connect, None),
        command(Command::QUERY),
        command(Command::STMT_PREPARE),
        command(Command::STMT_EXECUTE),
        (EventKind::ChangeUser, Some(Command::CHANGE_USER)),
        command(Command::QUERY),
        command(Command::QUIT),
        (EventKind::Disconnect, None),
    ];
    assert_eq!(told, expected, "{events:#?}");
    assert_eq!(events.iter().find(|event| event.outcome == Some(Outcome::Unfinished)), None);
    assert!(events[3].statement.as_ref().unwrap().sql.is_some());
    assert!(matches!(events[5].outcome, Some(Outcome::Error { code: Some(1142), .. })), "{:#?}", events[5]);
}

#[test]
fn a_server_whose_file_is_watched_through_two_mounts_is_recorded_once() {
    let mut watched = Watched::new(MariaDb::start().unwrap());
    let program = MariaDb::program().unwrap().canonicalize().unwrap();
    let container = Container::of(&program);
    assert_ne!(fs::metadata(&program).unwrap().dev(), fs::metadata(&container.program).unwrap().dev());
    assert_once(&session(&mut watched));

    let targets = derive(&container.program, &Table::load(None).unwrap()).unwrap().targets;
    let other = watched.probes.attach_functions(&container.program, &targets).unwrap();
    assert_once(&session(&mut watched));
    drop(watched.attachment.take());
    assert_once(&session(&mut watched));
    // Its file is the container's too: the slot that it had is given to it again.
    watched.attachment = Some(watched.probes.attach_functions(&program, &targets).unwrap());
    assert_once(&session(&mut watched));
    drop(other);
    assert_once(&session(&mut watched));

    let counters = watched.probes.counters(watched.server.pid().unwrap()).unwrap();
    assert_eq!((counters.seen, counters.unmatched), (counters.submitted, 0));
}
