//! Programs that come and go without end, as those of containers do.

use tempfile::TempDir;

use crate::collector::Place;
use crate::server::{Server, copy_to};

/// More than keep their probes when nobody runs them.
const PROGRAMS: usize = 68;

#[test]
fn programs_that_nobody_runs_give_their_room_back_and_are_watched_again() {
    let (place, directory) = (Place::new(), TempDir::new().unwrap());
    let collector = place.start(true);
    collector.looked_once();
    let first = copy_to(directory.path());
    for number in 1..=PROGRAMS {
        let of_its_own = TempDir::new_in(directory.path()).unwrap();
        let program = if number == 1 { first.clone() } else { copy_to(of_its_own.path()) };
        let mut server = Server::start_program(program);
        collector.find_program(&server);
        collector.find(&server);
        place.until("it is not known", || place.knows(&server));
        assert_eq!(place.probed_programs(), number.min(65));
        collector.ended(&mut server);
        place.until("too many keep their probes", || place.probed_programs() <= number.min(64));
    }
    let server = Server::start_program(first);
    collector.find(&server);
    place.until_watched(&server);
    collector.stop();
}
