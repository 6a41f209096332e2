//! WebSockets from the client's side. In: how many, for how long, messages of what size; out: how many
//! came back. Each has one message under way: it is sent, comes back from the backend, and is compared.

use std::cell::Cell;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::client::{Io, Target, read_any_head};
use crate::frames;
use crate::options::{Options, next_line};

/// `--connections`, `--seconds`, `--size`: messages echoed in that time.
pub(crate) async fn echo(options: &Options) {
    let target = Target::new(options);
    let (connections, size) = (options.number("connections", 32), options.number("size", 128));
    let period = options.seconds("seconds", 3.0);
    let (opened, start) = (Rc::new(Semaphore::new(0)), Rc::new(Semaphore::new(0)));
    let echoed = Rc::new(Cell::new(0_u64));
    let local = tokio::task::LocalSet::new();
    for number in 0..connections {
        let (target, echoed) = (target.clone(), echoed.clone());
        let (opened, start) = (opened.clone(), start.clone());
        local.spawn_local(async move {
            let mut socket = Socket::open(&target).await;
            socket.round_trip(&message(number, u64::MAX, size)).await;
            opened.add_permits(1);
            start.acquire().await.unwrap().forget();
            let end = Instant::now() + period;
            let mut turn = 0;
            while Instant::now() < end {
                socket.round_trip(&message(number, turn, size)).await;
                echoed.set(echoed.get() + 1);
                turn += 1;
            }
        });
    }
    let go = async {
        opened.acquire_many(connections as u32).await.unwrap().forget();
        println!("{{\"ready\":true}}");
        if next_line().await.is_none() {
            std::process::exit(0);
        }
        start.add_permits(connections as usize);
        Instant::now()
    };
    let began = local.run_until(go).await;
    local.await;
    let seconds = began.elapsed().as_secs_f64();
    println!("{{\"messages\":{},\"seconds\":{seconds:.3}}}", echoed.get());
}

/// No two are the same.
fn message(connection: u64, turn: u64, size: u64) -> Vec<u8> {
    let mut text = format!("{{\"connection\":{connection},\"turn\":{turn},\"pad\":\"").into_bytes();
    text.resize((size as usize).max(text.len() + 2) - 2, b'x');
    text.extend_from_slice(b"\"}");
    text
}

struct Socket {
    io: Box<dyn Io>,
    buf: Vec<u8>,
    out: Vec<u8>,
}

impl Socket {
    async fn open(target: &Target) -> Self {
        let (mut io, _) = target.connect().await.expect("a connection");
        io.write_all(&target.upgrade()).await.unwrap();
        io.flush().await.unwrap();
        let mut buf = Vec::with_capacity(1024);
        let (head, end) = read_any_head(&mut *io, &mut buf).await.expect("an answer");
        frames::check_answer(&head);
        buf.drain(..end);
        Self { io, buf, out: Vec::new() }
    }

    async fn round_trip(&mut self, message: &[u8]) {
        self.out.clear();
        frames::write(message, Some([0x5a, 0xa5, 0x3c, 0xc3]), &mut self.out);
        self.io.write_all(&self.out).await.unwrap();
        self.io.flush().await.unwrap();
        let (answer, masked) = loop {
            if let Some(frame) = frames::take(&mut self.buf) {
                break frame;
            }
            assert!(self.io.read_buf(&mut self.buf).await.unwrap() > 0, "the WebSocket ended");
        };
        // a server's frames are not masked: these bytes are not our own that came back
        assert!(!masked && answer == message, "another message came back");
    }
}
