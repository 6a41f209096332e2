//! Requests at a fixed rate, whether answers come or not (an open loop). In: a rate, connections, seconds;
//! out: latency from the moment at which each request was due, so that a proxy that stalls is charged
//! for all who had to wait meanwhile (no coordinated omission).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

use crate::client::{Target, exchange};
use crate::options::{Options, monotonic, next_line, print_times};
use crate::reconnect::CALL;

/// When requests are due that no connection has taken yet.
#[derive(Default)]
struct Due {
    at: RefCell<VecDeque<u64>>,
    waiting: Cell<u64>,
    most_waiting: Cell<u64>,
}

/// `--rate` a second over `--connections`, for `--seconds`; `--sessions FILE`: ids for them, in turn.
pub(crate) async fn run(options: &Options) {
    let (rate, connections) = (options.number("rate", 2000), options.number("connections", 32));
    let total = (rate as f64 * options.seconds("seconds", 3.0).as_secs_f64()) as u64;
    let ids = std::fs::read_to_string(options.text("sessions")).expect("session ids");
    let mut ids = ids.lines().cycle();
    let target = Target::new(options);
    let (due, times) = (Rc::new(Due::default()), Rc::new(RefCell::new(Vec::new())));
    // fair: connections take turns
    let (ready, go) = (Rc::new(Semaphore::new(0)), Rc::new(Semaphore::new(0)));
    let local = tokio::task::LocalSet::new();
    for _ in 0..connections {
        let target = Target { session: ids.next().map(str::to_owned), ..target.clone() };
        let (due, times) = (due.clone(), times.clone());
        let (ready, go) = (ready.clone(), go.clone());
        local.spawn_local(async move {
            let request = target.post(CALL);
            let (mut io, _) = target.connect().await.expect("a connection");
            exchange(&mut *io, &request).await.expect("an answer");
            ready.add_permits(1);
            while let Ok(permit) = go.acquire().await {
                permit.forget();
                let at = due.take();
                exchange(&mut *io, &request).await.expect("an answer");
                times.borrow_mut().push(monotonic() - at);
            }
        });
    }
    let work = async {
        ready.acquire_many(connections as u32).await.unwrap().forget();
        println!("{{\"ready\":true}}");
        if next_line().await.is_none() {
            std::process::exit(0);
        }
        tick(rate, total, &due, &go).await;
    };
    local.run_until(work).await;
    go.close();
    local.await;
    // what was due when the gate closed was taken by nobody
    assert_eq!(times.borrow().len() as u64 + due.waiting.get(), total);
    let more = [("most_waiting", due.most_waiting.get()), ("left", due.waiting.get())];
    print_times(&mut times.borrow_mut(), &more);
}

impl Due {
    fn put(&self, at: u64) {
        self.at.borrow_mut().push_back(at);
        self.waiting.set(self.waiting.get() + 1);
        self.most_waiting.set(self.most_waiting.get().max(self.waiting.get()));
    }

    fn take(&self) -> u64 {
        self.waiting.set(self.waiting.get() - 1);
        self.at.borrow_mut().pop_front().unwrap()
    }
}

/// Makes `total` requests due, one every `1 / rate` seconds by the kernel's timer; tokio's own knows
/// milliseconds only. Then waits until all are taken, a second at most.
async fn tick(rate: u64, total: u64, due: &Due, go: &Semaphore) {
    let period = 1_000_000_000 / rate;
    let begin = monotonic() + 5_000_000;
    let spec = |nanos: u64| Timespec {
        tv_sec: (nanos / 1_000_000_000) as i64,
        tv_nsec: (nanos % 1_000_000_000) as i64,
    };
    let timer = rustix::time::timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
    )
    .unwrap();
    let times = Itimerspec { it_interval: spec(period), it_value: spec(begin) };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &times).unwrap();
    // no pipe, but read in the same way
    let mut timer = pipe::Receiver::from_owned_fd_unchecked(timer).unwrap();
    let mut made = 0;
    while made < total {
        let mut count = [0; 8];
        assert_eq!(timer.read(&mut count).await.unwrap(), 8);
        for _ in 0..u64::from_ne_bytes(count).min(total - made) {
            due.put(begin + made * period);
            go.add_permits(1);
            made += 1;
        }
    }
    for _ in 0..100 {
        if due.waiting.get() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
