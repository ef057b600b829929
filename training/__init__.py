"""Making the checkpoints of Compose and Conquer: data, training stages and evaluation."""
