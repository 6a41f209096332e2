//! Networks: in, addresses; out, whether a list holds them, and who they are counted as.

use std::net::IpAddr;

/// One number for each IPv4 address and each IPv6 /64: what one subscriber has.
pub fn subscriber(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()) | 1 << 32,
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_has_one_address_or_one_prefix() {
        let who = |text: &str| subscriber(text.parse().unwrap());
        assert_eq!(who("192.0.2.1"), who("::ffff:192.0.2.1"));
        assert_ne!(who("192.0.2.1"), who("192.0.2.2"));
        assert_eq!(who("2001:db8::1"), who("2001:db8::ffff:0:0:1"));
        assert_ne!(who("2001:db8::1"), who("2001:db8:0:1::1"));
        assert_ne!(who("0.0.0.0"), who("::"));
    }
}
