"""The reward engine: one CLIP behind one face, the CLIP reward, and the policy gradient that it drives."""
