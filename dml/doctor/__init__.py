"""`dml doctor`: what would stop the first deploy, found before it; operator time, reading only.

`findings` has the words, `machine` the checks of this machine, `needs` what the synthesised templates want of an
account, `account`, `quotas` and `names` the checks of the account against that, `report` runs and shows them all.
"""

from dml.doctor.report import examine, problems, show

__all__ = ["examine", "problems", "show"]
