"""Enrolment at the plant: trust in headquarters, the authenticated session, downloads."""
