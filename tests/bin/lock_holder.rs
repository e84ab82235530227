//! Another process at a database: takes the write lock, changes something, says so, and holds on until its input ends.
//! Then it rolls back; killed before that, it leaves that to SQLite.

use std::io::{Write, stdin, stdout};

fn main() {
    let path = std::env::args_os().nth(1).expect("the database is named");
    let connection = rusqlite::Connection::open(path).expect("the database opens");
    connection.execute_batch("BEGIN IMMEDIATE; UPDATE session SET user = 'another process'").expect("the lock is free");
    println!("locked");
    stdout().flush().expect("somebody listens");
    std::io::copy(&mut stdin(), &mut std::io::sink()).expect("the input ends");
    connection.execute_batch("ROLLBACK").expect("it is rolled back");
}
