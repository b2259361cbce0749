"""The doctor: what would stop the first deploy, found before it, reading only (but for the change sets, if asked).

`findings` has the words, `machine` the checks of this machine, `needs` what the synthesised templates want of an
account (`standins` fills what is known only when deployed), `account`, `quotas` and `names` the checks of the account
against that, `questions` what AWS says of the templates themselves, `change_sets` what CloudFormation does, `report`
runs and shows them all.
Never: a change of anything, nor a question about what runs in what is deployed (that is `dml status`).
"""
