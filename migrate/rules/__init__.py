"""The law: how a rule is declared, all that are, a breach as a finding, and which of them to tell."""
