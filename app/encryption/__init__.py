"""Contents sealed before they leave the process: keys, who keeps them, and the seal itself."""
