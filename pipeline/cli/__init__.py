"""The command `swathe`: its options, and each verb as one call of one public function."""
