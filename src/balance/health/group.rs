//! What one replica's health means to its group: in, outcomes of requests and checks; out, who gets new work,
//! and a line in the log for each change.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::settings::{EjectSettings, HealthSettings};
use super::{Cause, Change, may_eject};
use crate::balance::Upstream;
use crate::balance::replica::Replica;
use crate::base::defaults;

impl Upstream {
    /// A request failed by a replica's fault.
    pub fn failed(&self, replica: &Replica, cause: Cause) {
        let settings = self.settings.eject.as_ref();
        let too_many = settings.map_or(defaults::EJECT_FAILURES, |eject| eject.failures);
        let streak = replica.health.failed();
        if streak >= too_many && settings.is_some_and(|eject| self.rests(replica, cause, eject)) {
            return;
        }
        // whoever cannot be spared goes on, and it must not look as if all were well
        if streak >= too_many || replica.health.is_failing() {
            let change = replica.health.fails(cause, streak, Instant::now());
            if let Some(change) = change {
                self.tell(replica, change);
            }
        }
    }

    /// A request was answered by a replica with a status that speaks for it.
    pub fn answered(&self, replica: &Replica) {
        if let Some(change) = replica.health.answered() {
            self.tell(replica, change);
        }
    }

    /// Takes a replica out, if it can be spared.
    fn rests(&self, replica: &Replica, cause: Cause, settings: &EjectSettings) -> bool {
        // two that fail at once must not both be the last that may go
        let _judging = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        let (away, all) = {
            let members = self.members();
            let away = members.replicas.iter().filter(|r| !gets_work(r)).count();
            (away, members.replicas.len())
        };
        if !replica.health.is_open() || !may_eject(away, all, settings.at_most) {
            return false;
        }
        let change = replica.health.eject(cause, settings, Instant::now());
        self.changed(replica, change);
        true
    }

    /// A check of a replica has come to its end.
    pub fn checked(
        &self,
        replica: &Replica,
        result: Result<(), String>,
        settings: &HealthSettings,
    ) {
        let change = replica.health.checked(result, settings, Instant::now());
        self.perhaps(replica, change);
    }

    /// A connection could be made to a replica that was ejected because none could.
    pub fn reached(&self, replica: &Replica) {
        let change = replica.health.reached(self.slow_start(), Instant::now());
        self.perhaps(replica, change);
    }

    /// Ends ejections that are over, and lets slow starts go on. To be called once a second.
    pub fn tick(&self) {
        let now = Instant::now();
        let replicas = self.members().replicas.clone();
        for replica in &replicas {
            let change = replica.health.tick(self.slow_start(), now);
            self.perhaps(replica, change);
            if self.settings.health.is_none() {
                // a reload may have ended the checks
                self.perhaps(replica, replica.health.unchecked(now));
            }
        }
    }

    fn slow_start(&self) -> Duration {
        self.settings.health.as_ref().map_or(Duration::ZERO, |h| h.slow_start)
    }

    fn perhaps(&self, replica: &Replica, change: Option<Change>) {
        if let Some(change) = change {
            self.changed(replica, change);
        }
    }

    fn changed(&self, replica: &Replica, change: Change) {
        self.regroup();
        self.tell(replica, change);
    }

    fn tell(&self, replica: &Replica, change: Change) {
        let (name, authority) = (&self.settings.name, &replica.server.authority);
        let problem = replica.health.story().1.map(|problem| problem.text).unwrap_or_default();
        match change {
            Change::Up => log::info!("upstream `{name}`: {authority} is up"),
            Change::Tried => log::info!("upstream `{name}`: {authority} is tried again"),
            Change::Failing(cause, streak) => {
                let cause = cause.name();
                log::warn!(
                    "upstream `{name}`: {authority} fails: {streak} requests in a row, the last one by `{cause}`; \
                     it gets new ones all the same"
                );
            }
            Change::Down => log::warn!("upstream `{name}`: {authority} is down: {problem}"),
            Change::Ejected(_, period) => {
                let seconds = period.as_secs_f32();
                log::warn!("upstream `{name}`: {authority} rests for {seconds} s: {problem}");
            }
        }
        let away = matches!(change, Change::Down | Change::Ejected(..));
        if away && !self.members().replicas.iter().any(gets_work) {
            log::error!("upstream `{name}`: no replica is up: all are tried");
        }
    }
}

fn gets_work(replica: &Arc<Replica>) -> bool {
    replica.state().gets_work()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::health::settings::Check;
    use crate::balance::settings::UpstreamSettings;
    use crate::balance::view::ReplicaView;
    use crate::balance::view::State;
    use crate::balance::{Bound, Plan, compile};
    use crate::base::url;

    const EJECT: EjectSettings =
        EjectSettings { failures: 2, period: Duration::from_secs(9), at_most: 50 };

    fn upstream(n: usize, checks: bool) -> Upstream {
        let one = |n: usize| {
            compile::from_origin(&url::origin(&format!("http://{n}.example")).unwrap()).unwrap()
        };
        let health = checks.then(|| HealthSettings {
            check: Check::Tcp,
            every: Duration::from_secs(9),
            timeout: Duration::from_secs(1),
            up_after: 1,
            down_after: 1,
            slow_start: Duration::ZERO,
        });
        let servers = (0..n).flat_map(|n| one(n).servers).collect();
        Upstream::new(UpstreamSettings { servers, health, eject: Some(EJECT), ..one(0) })
    }

    fn replicas(upstream: &Upstream) -> Vec<Arc<Replica>> {
        upstream.members().replicas.clone()
    }

    fn fail(upstream: &Upstream, replica: &Replica, times: usize) {
        (0..times).for_each(|_| upstream.failed(replica, Cause::Status));
    }

    fn problem(view: &ReplicaView) -> Option<String> {
        view.problem.as_ref().map(|problem| problem.text.clone())
    }

    /// How often each is chosen, in 60 choices.
    fn chosen(upstream: &Upstream, replicas: &[Arc<Replica>]) -> Vec<usize> {
        let mut counts = vec![0; replicas.len()];
        for _ in 0..60 {
            let plan = Plan { bound: Bound::Nothing, ticket: None };
            let one = upstream.choose(&plan, &[]).unwrap();
            counts[replicas.iter().position(|r| Arc::ptr_eq(r, &one)).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn who_fails_rests_and_the_others_share_what_was_his() {
        let upstream = upstream(4, false);
        let all = replicas(&upstream);
        fail(&upstream, &all[1], 1);
        all[1].health.answered();
        fail(&upstream, &all[1], 1);
        assert_eq!(chosen(&upstream, &all), [15; 4]);
        fail(&upstream, &all[1], 1);
        assert_eq!(chosen(&upstream, &all), [20, 0, 20, 20]);
        // half of them may rest, and no more
        fail(&upstream, &all[2], 2);
        fail(&upstream, &all[3], 9);
        assert_eq!(chosen(&upstream, &all), [30, 0, 0, 30]);
        let views = upstream.views();
        assert_eq!(views[1].state, State::Ejected);
        assert_eq!(problem(&views[1]).as_deref(), Some("requests failed: status"));
        // the last of them is not spared, and it shows
        assert_eq!(views[3].state, State::Failing);
        assert_eq!(problem(&views[3]).as_deref(), Some("requests failed: status"));
    }

    #[test]
    fn one_alone_never_rests() {
        let upstream = upstream(1, false);
        let all = replicas(&upstream);
        fail(&upstream, &all[0], 100);
        assert_eq!((all[0].state(), chosen(&upstream, &all)), (State::Failing, vec![60]));
        upstream.answered(&all[0]);
        let view = all[0].view();
        assert_eq!((view.state, view.problem.is_none()), (State::Up, true));
    }

    #[test]
    fn who_must_not_rest_is_seen_to_fail() {
        let mut upstream = upstream(2, false);
        upstream.settings.eject = None;
        let all = replicas(&upstream);
        fail(&upstream, &all[0], 4);
        assert_eq!(all[0].state(), State::Up);
        fail(&upstream, &all[0], 1);
        assert_eq!((all[0].state(), chosen(&upstream, &all)), (State::Failing, vec![30, 30]));
    }

    #[test]
    fn who_is_down_counts_as_one_that_rests() {
        let upstream = upstream(3, true);
        let (all, settings) = (replicas(&upstream), upstream.settings.health.clone().unwrap());
        upstream.checked(&all[0], Err("no".into()), &settings);
        fail(&upstream, &all[1], 9);
        assert_eq!(chosen(&upstream, &all), [0, 30, 30]);
        // rather a try than a refusal of everything
        for replica in &all {
            upstream.checked(replica, Err("no".into()), &settings);
        }
        assert_eq!(chosen(&upstream, &all), [20, 20, 20]);
        upstream.checked(&all[2], Ok(()), &settings);
        assert_eq!(chosen(&upstream, &all), [0, 0, 60]);
    }

    #[test]
    fn who_is_checked_no_more_is_up() {
        let upstream = upstream(2, true);
        let (all, settings) = (replicas(&upstream), upstream.settings.health.clone().unwrap());
        upstream.checked(&all[0], Err("no".into()), &settings);
        let health = None;
        let after = UpstreamSettings { health, ..upstream.settings.clone() };
        let servers = after.servers.clone();
        let after = Upstream::among(after, &servers, Some(&upstream));
        assert_eq!(chosen(&after, &all), [0, 60]);
        after.tick();
        assert_eq!(chosen(&after, &all), [30, 30]);
    }

    #[test]
    fn a_newcomer_waits_for_its_first_good_check() {
        for checks in [true, false] {
            let upstream = upstream(1, checks);
            let servers = replicas(&self::upstream(2, false));
            let servers: Vec<_> = servers.iter().map(|r| r.server.clone()).collect();
            upstream.replace(&servers, |_| {});
            let all = replicas(&upstream);
            assert_eq!(chosen(&upstream, &all), if checks { [60, 0] } else { [30, 30] });
            if let Some(settings) = &upstream.settings.health {
                upstream.checked(&all[1], Ok(()), settings);
                assert_eq!(chosen(&upstream, &all), [30, 30]);
            }
        }
    }
}
