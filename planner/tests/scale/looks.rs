//! Looking at machines: how many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Barrier;
use vmctl_planner::observed::Sight;
use vmctl_planner::refresh;
use vmctl_providers::{Inspect, Inspection, Result, VmHandle};
use vmctl_state::Store;

use super::{NumbersHost, World};

/// As many as one look may be held up by.
const AT_ONCE: usize = 40;

/// Machines that answer when as many were asked as are looked at side by side, and not before.
struct Shy {
    host: Arc<NumbersHost>,
    asked: AtomicUsize,
    all: Barrier,
}

impl Inspect for Shy {
    async fn inspect(&self, vm: &VmHandle) -> Result<Inspection> {
        if self.asked.fetch_add(1, Ordering::Relaxed) < AT_ONCE {
            self.all.wait().await;
        }
        self.host.inspect(vm).await
    }
}

/// However many processors there are: machines that hang hold up no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn forty_machines_may_keep_silent_before_others_wait() {
    let mut world = World::new(NumbersHost::default());
    let plan = world.plan((0..2 * AT_ONCE + 1).map(|number| world.vm(number)));
    world.apply(&plan).await;
    let recorded = world.store.snapshot().unwrap();
    let host = Shy { host: Arc::clone(&world.host), asked: AtomicUsize::new(0), all: Barrier::new(AT_ONCE) };
    let seen = refresh(&Arc::new(host), &recorded).await.unwrap();
    assert_eq!(seen.vms.len(), 2 * AT_ONCE + 1);
    for (address, sight) in &seen.vms {
        assert!(matches!(sight, Sight::Seen(_)), "{address}: {sight:?}");
    }
}
