//! MariaDB's thread pool: one thread serves many connections, and each command is told of the connection that it was of.

use whence_model::Command;
use whence_testkit::{Client, Product, Via};

use crate::told::sql;
use crate::watched::Watched;

crate::servers::for_each_mariadb! {
    connections_that_share_threads,
}

fn connections_that_share_threads(product: Product) {
    const CONNECTIONS: usize = 60;
    const ROUNDS: usize = 5;
    let pool = ["--thread-handling=pool-of-threads", "--thread-pool-size=2", "--thread-pool-max-threads=6"];
    let mut watched = Watched::start_with(product, &pool);
    let address = watched.server.address(Via::Tcp);
    let users = ["ana", "ben", "zoë"];
    let user = |number: usize| users[number % users.len()];
    let mut clients: Vec<_> =
        (0..CONNECTIONS).map(|number| Client::open(&address, user(number), "shop").unwrap()).collect();
    for round in 0..ROUNDS {
        for (number, client) in clients.iter_mut().enumerate() {
            client.query(&format!("SELECT {number}, {round}")).unwrap();
        }
    }
    let ids: Vec<(u64, Option<u16>)> =
        clients.iter().map(|client| (client.connection_id, client.port)).collect();
    for client in clients {
        client.quit().unwrap();
    }
    for (number, (id, port)) in ids.into_iter().enumerate() {
        let events = watched.connection(id);
        let queries: Vec<_> = events.iter().filter(|event| event.command == Some(Command::QUERY)).collect();
        let told: Vec<_> = queries.iter().map(|event| sql(event)).collect();
        let sent: Vec<_> = (0..ROUNDS).map(|round| format!("SELECT {number}, {round}")).collect();
        assert_eq!(told, sent);
        for event in events {
            assert_eq!(event.principal.user.as_deref(), Some(user(number)), "{event:#?}");
            assert_eq!(event.principal.client_port, port);
        }
    }
    let counters = watched.counters();
    assert_eq!((counters.seen, counters.unmatched), (counters.submitted, 0));
}
