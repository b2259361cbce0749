"""Who may do what: every call's identity, the policies that decide it, and the record of what was decided.

In here: `guard` (the door, before any service) and `signatures` (whether a request is from who it says), `authorise`
(the decision), `iam` (roles and policies), `variables` (in policies), `keys` (KMS), `endpoints` (VPC endpoint
policies), `calls` and `permissions` (the record, and how it is shown). Never: what a service does with a call that is
allowed.
"""
