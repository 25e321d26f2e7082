//! A network interface of this machine that loses packets and makes the way long, for any transport.
//!
//! What is sent to its far address comes back as if that were another machine, which talks to the near
//! address: source and destination change places, so that no checksum changes. A server at the near
//! address is reached at the far one, and what they say goes through here both ways.

use std::{io, net::Ipv4Addr, sync::Arc};

use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tun_rs::{AsyncDevice, DeviceBuilder};

use crate::lossy::{Dice, Loss, Packet};

/// Where a server listens.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 211, 55, 1);

/// Where it is reached.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 211, 55, 2);

/// Bytes of a packet, as on most ways.
const MTU: u16 = 1500;

/// The interface, as long as it lives.
#[derive(Debug)]
pub struct Mirror {
    _tasks: JoinSet<()>,
}

impl Mirror {
    /// Makes the interface.
    ///
    /// # Errors
    /// When this process may not make one: it takes Linux, `/dev/net/tun`, and root.
    pub fn start(loss: Loss) -> io::Result<Self> {
        let device = DeviceBuilder::new()
            .ipv4(NEAR, 24, None)
            .mtu(MTU)
            .build_async()?;
        let device = Arc::new(device);
        let (mirrored, packets) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(take(Arc::clone(&device), loss, mirrored));
        tasks.spawn(give(device, packets));
        Ok(Self { _tasks: tasks })
    }
}

async fn take(device: Arc<AsyncDevice>, loss: Loss, mirrored: mpsc::UnboundedSender<Packet>) {
    let dice = Dice::new(loss);
    let mut packet = vec![0; 1 << 16];
    while let Ok(len) = device.recv(&mut packet).await {
        let packet = &mut packet[..len];
        // IPv4 only: the kernel itself speaks IPv6 to any interface
        if len < 20 || packet[0] >> 4 != 4 || dice.loses() {
            continue;
        }
        let (sources, destinations) = packet[12..20].split_at_mut(4);
        sources.swap_with_slice(destinations);
        // nobody receives it when the interface ends
        let _ = mirrored.send((Instant::now() + loss.delay, packet.to_vec()));
    }
}

async fn give(device: Arc<AsyncDevice>, mut packets: mpsc::UnboundedReceiver<Packet>) {
    while let Some((at, packet)) = packets.recv().await {
        tokio::time::sleep_until(at).await;
        // one that cannot be sent is lost, as any other may be
        let _ = device.send(&packet).await;
    }
}
