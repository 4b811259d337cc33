"""What pages share: one HTML file each, that opens without a network, in light and dark, on a phone and on paper."""
