"""Contract suites and oracles, shipped so that applications and users test their own blocks with them.

A suite is a table of checks, each a function of one case, and a function that lists the cases of a room's table. A test
file is then one parametrised function; a new member of the table is tested by having joined it.

    @pytest.mark.parametrize("check", MIXER_CHECKS.values(), ids=MIXER_CHECKS)
    @pytest.mark.parametrize("case", mixer_cases(), ids=str)
    def test_contract(case, check):
        check(case)
"""
